"""Plans for LightMUNet by nnU-Net's experiment planner: patch and batch size by what this network needs."""

PLANS_NAME = "nnUNetLightMUNetPlans"
STOCK_PLANS_NAME = "nnUNetPlans"
