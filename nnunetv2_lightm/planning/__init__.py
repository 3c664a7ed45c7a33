"""Plans for LightMUNet, made by nnU-Net's experiment planner with the patch and batch size that suit this network."""

PLANS_NAME = "nnUNetLightMUNetPlans"
STOCK_PLANS_NAME = "nnUNetPlans"
